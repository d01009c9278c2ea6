"""A small project for commands that run as processes of their own: settings, and one function."""

"""Users who sign up."""

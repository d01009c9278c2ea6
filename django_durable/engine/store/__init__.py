"""Which statement makes a change, and in which transaction?"""

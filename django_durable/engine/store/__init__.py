"""Which statement does it take, and in which transaction?"""

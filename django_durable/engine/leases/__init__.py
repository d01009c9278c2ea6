"""Who holds what, and who is alive?"""

"""What does the admin show of a run, and let staff do to it?"""

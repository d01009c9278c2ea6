"""What does the admin show of a run, and what does it let staff do to it?"""

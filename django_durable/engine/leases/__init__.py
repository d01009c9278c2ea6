"""Who holds a run, and who is alive?"""

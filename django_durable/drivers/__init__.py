"""Who carries a wake-up to a worker?"""

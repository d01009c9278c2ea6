"""Who carries a hint to a worker?"""

"""How does a run start, end, and get changed from outside?"""

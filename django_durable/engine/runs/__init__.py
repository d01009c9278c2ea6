"""How does a run start and end, and how is it changed from outside?"""

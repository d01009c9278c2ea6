"""How does an event come in, and how is it found?"""

"""How does an event come in, and get found?"""

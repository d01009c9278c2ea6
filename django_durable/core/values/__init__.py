"""How is a Python value recorded as text, and read back?"""

"""What does each step do?"""

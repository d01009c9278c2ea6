"""What is an event, and which one does a trigger or a wait take?"""

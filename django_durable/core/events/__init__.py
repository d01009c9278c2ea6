"""What is an event, and which events does a trigger or a wait take?"""

"""What does a user write?"""

"""What is due?"""

"""What does one message make a worker do?"""

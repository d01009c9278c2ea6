"""What does one message do?"""

"""What may a person type on the command line?"""

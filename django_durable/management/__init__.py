"""What can a person type on the command line?"""

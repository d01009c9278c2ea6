"""What do several pages of the admin share?"""

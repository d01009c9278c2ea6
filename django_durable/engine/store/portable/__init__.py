"""Which statement does it take, in portable ORM?"""

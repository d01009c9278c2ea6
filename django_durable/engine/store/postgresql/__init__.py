"""Which statement does it take, on PostgreSQL?"""

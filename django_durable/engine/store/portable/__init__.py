"""How does the ORM do what the contract asks, on every database?"""

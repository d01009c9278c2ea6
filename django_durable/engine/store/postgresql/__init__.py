"""How does PostgreSQL do what the contract asks, in single statements?"""

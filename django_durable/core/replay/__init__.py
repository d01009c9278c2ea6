"""How does a handler run over what is recorded?"""

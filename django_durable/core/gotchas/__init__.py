"""Which mistakes in a handler's source does replay punish?"""

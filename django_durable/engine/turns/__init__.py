"""How far does a run go now?"""

"""Which commands does ``manage.py`` find?"""

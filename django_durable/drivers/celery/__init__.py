"""How does Celery carry a wake-up?"""

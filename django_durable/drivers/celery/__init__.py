"""How does Celery carry a hint? No other package imports Celery.

Messages carry ids only, are acknowledged early, keep no result and are never delayed: a message that is lost or doubled
changes when something happens, never what happens. A thread publishes them, so that a broker that is down or frozen
blocks and fails nobody.
"""

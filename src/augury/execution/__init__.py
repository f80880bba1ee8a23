"""Carrying out work: the worker, the sweeper, and the executors that wake workers.

The only package that imports Celery, and only in `celery_app.py`.
"""

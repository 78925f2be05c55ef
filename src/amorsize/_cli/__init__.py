"""The commands of ``python -m amorsize``, and what their words mean."""

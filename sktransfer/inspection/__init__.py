"""Displays and measures that look at data and at fitted estimators, and change neither. Nothing below knows them."""

from sktransfer.inspection._duplicates import duplicate_groups

__all__ = ["duplicate_groups"]

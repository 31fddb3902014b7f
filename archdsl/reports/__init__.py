"""Reports: tables about one model or several, computed from their graphs. Free of torch."""
from archdsl.reports.model import Column, Report, Row
from archdsl.reports.registry import Subject, report

__all__ = ["Column", "Report", "Row", "Subject", "report"]

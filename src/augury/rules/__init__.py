"""Rules: patterns, the matcher over many of them, and the versions of both.

The language and its matcher are pure and know nothing of rules' storage:

    compile_pattern({"data": {"key": [{"suffix": ".parquet"}]}}).matches(event)
    Matcher({"landing": {"type": ["augury.object.created"]}}).match(event) == {"landing"}
"""

from augury.errors import PatternError
from augury.rules.limits import PatternFault
from augury.rules.matcher import Matcher
from augury.rules.pattern import DIALECTS, Pattern, compile_pattern

__all__ = ["DIALECTS", "Matcher", "Pattern", "PatternError", "PatternFault", "compile_pattern"]

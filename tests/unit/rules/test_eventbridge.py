"""The dialect `eventbridge`: decisions that were checked against event-ruler 2.0.1."""

from __future__ import annotations

import pytest

from augury.errors import PatternError
from augury.rules import Matcher, compile_pattern
from augury.rules.document import read_event

# pattern, events that meet it, events that do not
DECIDED = [
    (
        '{"a":[1]}',
        ['{"a":1}', '{"a":1.0}', '{"a":[0,1e0]}'],
        ['{"a":"1"}', '{"a":true}', '{"a":[]}'],
    ),
    ('{"a":["x",null,true]}', ['{"a":"x"}', '{"a":null}', '{"a":true}'], ['{"a":false}', "{}"]),
    ('{"a":[9007199254740993]}', ['{"a":9007199254740993}'], ['{"a":9007199254740993.0}']),
    ('{"a":[1e400]}', ['{"a":1e400}'], ['{"a":1E400}', '{"a":1e401}']),
    ('{"a":[{"numeric":["=",5]}]}', ['{"a":5.0}'], ['{"a":"5"}', '{"a":6}']),
    (
        '{"a":[{"numeric":[">",0,"<=",5]}]}',
        ['{"a":5}', '{"a":1e-300}'],
        ['{"a":0}', '{"a":-0.0}', '{"a":1760000000000000001}', '{"a":1234567890123456.789}'],
    ),
    ('{"a":[{"numeric":["<",1e300]}]}', ['{"a":-1e300}'], ['{"a":9007199254740993}']),
    # strings are compared within their quotation marks
    ('{"a":[{"suffix":"\\""}]}', ['{"a":""}', '{"a":"x\\""}'], ['{"a":"x"}', '{"a":5}']),
    ('{"a":[{"prefix":"x\\""}]}', ['{"a":"x"}', '{"a":"x\\"y"}'], ['{"a":"xy"}']),
    ('{"a":[{"prefix":""}]}', ['{"a":""}', '{"a":"x"}'], ['{"a":1}', '{"a":null}']),
    ('{"a":[{"prefix":{"equals-ignore-case":"aB"}}]}', ['{"a":"Abc"}'], ['{"a":"a"}']),
    ('{"a":[{"suffix":{"equals-ignore-case":"aB"}}]}', ['{"a":"cAb"}'], ['{"a":"b"}']),
    # each character of the pattern in both its cases, the value as it is
    ('{"a":[{"equals-ignore-case":"straße"}]}', ['{"a":"STRASSE"}'], ['{"a":"strasse"}']),
    ('{"a":[{"equals-ignore-case":"\\u212a"}]}', ['{"a":"k"}', '{"a":"\\u212a"}'], ['{"a":"K"}']),
    ('{"a":[{"equals-ignore-case":"\\u01c5"}]}', ['{"a":"\\u01c4"}'], ['{"a":"\\u01c5"}']),
    ('{"a":[{"equals-ignore-case":"😀"}]}', ['{"a":"??"}'], ['{"a":"😀"}']),
    ('{"a":[{"wildcard":"a*b"}]}', ['{"a":"ab"}', '{"a":"a*xb"}'], ['{"a":"abc"}']),
    ('{"a":[{"wildcard":"a\\\\*\\\\\\\\"}]}', ['{"a":"a*\\\\"}'], ['{"a":"ax\\\\"}']),
    ('{"a":[{"wildcard":"*ab*ab*"}]}', ['{"a":"xabab"}'], ['{"a":"xab"}', '{"a":"aba"}']),
    # anything-but: any element may differ, other types do, absence does not
    (
        '{"a":[{"anything-but":"x"}]}',
        ['{"a":["x","y"]}', '{"a":1}', '{"a":null}', '{"a":[[],false]}'],
        ['{"a":"x"}', '{"a":[]}', '{"a":{}}', "{}"],
    ),
    ('{"a":[{"anything-but":[1,2]}]}', ['{"a":"1"}', '{"a":9007199254740993}'], ['{"a":2.0}']),
    ('{"a":[{"anything-but":{"prefix":["x","y"]}}]}', ['{"a":"zx"}'], ['{"a":"yz"}']),
    ('{"a":[{"anything-but":{"wildcard":"*x*"}}]}', ['{"a":"z"}', '{"a":5}'], ['{"a":"axb"}']),
    # addresses
    ('{"a":["1.2.3.4"]}', ['{"a":"01.2.3.4"}', '{"a":"::ffff:102:304"}'], ['{"a":"1.2.3.5"}']),
    ('{"a":["::1"]}', ['{"a":"0:0:0:0:0:0:0:1"}'], ['{"a":"::2"}']),
    ('{"a":["16.0.0.0"]}', ['{"a":"16.0.0.0"}', '{"a":10000000}'], ['{"a":16}']),
    ('{"a":[{"cidr":"10.0.0.0/8"}]}', ['{"a":"10.255.0.1"}'], ['{"a":"11.0.0.0"}', '{"a":"x"}']),
    ('{"a":[{"cidr":"0.0.0.0/0"}]}', ['{"a":"2001:db8::1"}', '{"a":12}'], ['{"a":0}', '{"a":-12}']),
    ('{"a":[{"cidr":"0.0.0.0/0"},{"numeric":[">",50]}]}', ['{"a":60}'], ['{"a":12}']),
    ('{"a":["999.1.1.1"]}', ['{"a":"999.1.1.1"}'], ['{"a":"1.1.1.1"}']),
    # existence is a matter of scalars
    (
        '{"a":[{"exists":true}]}',
        ['{"a":null}', '{"a":[1]}'],
        ['{"a":{}}', '{"a":[]}', '{"a":[{}]}'],
    ),
    ('{"a":[{"exists":false}]}', ['{"a":{"b":1}}', '{"a":[]}', "{}"], ['{"a":0}', '{"a":[{},0]}']),
    ('{"a":["x",{"exists":false}]}', ['{"a":"x"}', "{}"], ['{"a":"y"}']),
    # arrays of objects
    ('{"a":{"b":[1],"c":[2]}}', ['{"a":[{"b":1,"c":2}]}'], ['{"a":[{"b":1},{"c":2}]}']),
    ('{"a":[1],"a.b":[2]}', ['{"a":[1,{"b":2}]}', '{"a":1,"a.b":2}'], ['{"a":[[1],[{"b":2}]]}']),
    (
        '{"a":{"b":[1]},"c":{"b":[1]}}',
        ['{"a":[{"b":1}],"c":[{"b":0},{"b":1}]}'],
        ['{"a":[{"b":1}]}'],
    ),
    # absence is decided by the elements that earlier fields have chosen
    ('{"a":{"b":[{"exists":false}],"c":[1]}}', ['{"a":[{"c":1}]}'], ['{"a":[{"b":1},{"c":1}]}']),
    (
        '{"a":{"b":[1],"c":[{"exists":false}]}}',
        ['{"a":[{"b":1},{"c":1}]}'],
        ['{"a":[{"b":1,"c":1}]}'],
    ),
    # $or, and what is called so
    ('{"$or":[{"a":[1]},{"b":[1]}]}', ['{"b":1}'], ['{"a":2}']),
    ('{"a":[1],"$or":[{"a":[2]},{"b":[1]}]}', ['{"a":2}', '{"a":1,"b":1}'], ['{"a":1}']),
    (
        '{"a":{"b":[1],"$or":[{"c":[1]},{"c":[2]}]}}',
        ['{"a":[{"b":1,"c":2}]}'],
        ['{"a":[{"b":1},{"c":2}]}'],
    ),
    ('{"$or":["a"]}', ['{"$or":"a"}'], ['{"a":"a"}']),
    ('{"$or":[{"prefix":"a"},{"suffix":"b"}]}', ['{"$or":"ax"}'], ['{"$or":"x"}']),
    ('{"$or":{"a":[1]}}', ['{"$or":{"a":1}}'], ['{"a":1}']),
    # names
    ('{"a.b":[1]}', ['{"a":{"b":1}}', '{"a.b":1}', '{"a":[{"b":1}]}'], ['{"a":1,"b":1}']),
    ('{"a":{"b.c":[1]}}', ['{"a.b":{"c":1}}', '{"a.b.c":1}'], ['{"a":{"b":1}}']),
    ('{"a.":[1]}', ['{"a.":1}'], ['{"a":{"":1}}', '{"a":1}']),
    ('{"a":[1],"a":[2]}', ['{"a":2}'], ['{"a":1}']),
    ('{"a":{"b":[1]},"a":{"c":[2]}}', ['{"a":{"b":1,"c":2}}'], ['{"a":{"c":2}}']),
    ('{"a":[1]} and whatever follows', ['{"a":1}'], ['{"a":2}']),
    (
        '{"a":[{"anything-but":{"prefix":["x"]}},{"exactly":"10.0.0.1"}]}',
        ['{"a":"y"}'],
        ['{"a":"xy"}'],
    ),
]


@pytest.mark.parametrize(("pattern", "meeting", "others"), DECIDED, ids=[row[0] for row in DECIDED])
def test_decisions(pattern: str, meeting: list[str], others: list[str]) -> None:
    compiled = compile_pattern(pattern, dialect="eventbridge")
    matcher = Matcher({"r": compiled})
    for text in meeting:
        assert compiled.matches(read_event(text)), text
        assert matcher.match(text.encode()) == {"r"}, text
    for text in others:
        assert not compiled.matches(read_event(text)), text
        assert matcher.match(text.encode()) == set(), text


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{}", "$"),
        ("[]", "$"),
        ('{"a":"x"}', "$.a"),
        ('{"a":[]}', "$.a"),
        ('{"a":{}}', "$.a"),
        ('{"a":[[1]]}', "$.a[0]"),
        ('{"a":[{}]}', "$.a[0]"),
        ('{"a":[{"prefix":"a","suffix":"b"}]}', "$.a[0]"),
        ('{"a":[{"near":1}]}', "$.a[0].near"),
        ('{"a":[{"prefix":1}]}', "$.a[0].prefix"),
        ('{"a":[{"prefix":{"wildcard":"x"}}]}', "$.a[0].prefix"),
        ('{"a":[{"exists":"yes"}]}', "$.a[0].exists"),
        ('{"a":[{"wildcard":"a**b"}]}', "$.a[0].wildcard"),
        ('{"a":[{"wildcard":"a\\\\b"}]}', "$.a[0].wildcard"),
        ('{"a":[{"numeric":[">","1"]}]}', "$.a[0].numeric"),
        ('{"a":[{"numeric":["<",1,">",0]}]}', "$.a[0].numeric"),
        ('{"a":[{"numeric":[">",5,"<",5]}]}', "$.a[0].numeric"),
        ('{"a":[{"numeric":["!=",5]}]}', "$.a[0].numeric"),
        ('{"a":[{"numeric":[">",9007199254740993]}]}', "$.a[0].numeric"),
        ('{"a":[{"numeric":[">",1.7976931348623157e308]}]}', "$.a[0].numeric"),
        ('{"a":[{"cidr":"10.0.0.1/32"}]}', "$.a[0].cidr"),
        ('{"a":[{"cidr":"::1/128"}]}', "$.a[0].cidr"),
        ('{"a":[{"cidr":"10.0.0.1"}]}', "$.a[0].cidr"),
        ('{"a":[{"anything-but":[1,"a"]}]}', "$.a[0].anything-but"),
        ('{"a":[{"anything-but":null}]}', "$.a[0].anything-but"),
        ('{"a":[{"anything-but":[]}]}', "$.a[0].anything-but"),
        ('{"a":[{"anything-but":{"prefix":""}}]}', "$.a[0].anything-but.prefix"),
        ('{"a":[{"anything-but":{"prefix":[]}}]}', "$.a[0].anything-but.prefix"),
        ('{"a":[{"anything-but":{"numeric":[">",1]}}]}', "$.a[0].anything-but"),
        ('{"$or":[{"a":[1]}]}', "$.$or"),
        ('{"$or":[{"a":[1]},{"exists":[1]}]}', "$.$or[1].exists"),
    ],
)
def test_refusals(pattern: str, path: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern, dialect="eventbridge")
    assert path in [fault.path for fault in caught.value.faults]

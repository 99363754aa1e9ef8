"""Units of measure and the labels people put behind a number.

Two answers whose units are both known must name the same unit; a unit that is missing on one side is no contradiction.
Labels that only say what was counted ("ways", "solutions") are ignored. Words that change the value ("6 squared", "9
below", "13 ruled out") are never a label; words that say something of the number ("8 extraneous") are a remark.
"""

from __future__ import annotations

import re

from lco.verifier.patterns import regex
from lco.verifier.read.remarks import PAIRS, are_pairs, is_plural, remark

_NAMES = """
$: $ dollar dollars usd buck bucks us$ 美元
€: € euro euros eur 欧元
£: £ pound_sterling gbp 英镑
¥: ¥ yen yuan rmb jpy cny 元 日元 人民币
₹: ₹ rupee rupees rs inr 卢比
₩: ₩ won krw
₽: ₽ ruble rubles rouble roubles rub
₺: ₺ lira liras try
฿: ฿ baht thb
₫: ₫ dong vnd
₱: ₱ peso pesos php mxn
₪: ₪ shekel shekels ils
₦: ₦ naira ngn
CHF: chf franc francs
CA$: cad
A$: aud
cent: cent cents ¢ penny pennies 分
%: % percent percentage pct
‰: ‰ permille permil promille
bp: bp bps bips
ppm: ppm
ppb: ppb
ppt: ppt
deg: deg degree degrees ° 度
C: C coulomb coulombs
°C: celsius centigrade °c 摄氏度
°F: fahrenheit °f
rad: rad radian radians 弧度
μm: μm um micrometer micrometers micrometre micrometres micron microns
mm: mm millimeter millimeters millimetre millimetres 毫米
cm: cm centimeter centimeters centimetre centimetres 厘米
dm: dm decimeter decimeters decimetre decimetres 分米
m: m meter meters metre metres 米
km: km kilometer kilometers kilometre kilometres 千米 公里
in: in inch inches
ft: ft foot feet
yd: yd yard yards
mi: mi mile miles
nm: nm nanometer nanometers nanometre nanometres
pm: picometer picometers picometre picometres
ly: ly lightyear lightyears
pc: pc parsec parsecs
au: au AU
μg: μg microgram micrograms
mg: mg milligram milligrams 毫克
g: g gram grams gm 克
kg: kg kilogram kilograms kilos 千克 公斤
t: ton tons tonne tonnes 吨
oz: oz ounce ounces
lb: lb lbs pound pounds
ns: ns nanosecond nanoseconds
μs: μs microsecond microseconds
ms: ms millisecond milliseconds
s: s sec secs second seconds 秒
minute: min mins minute minutes 分钟
h: h hr hrs hour hours 小时 时
day: day days 天 日
week: week weeks 周
month: month months 月
year: yr yrs year years 年
μL: μL μl microliter microliters microlitre microlitres
ml: ml mL milliliter milliliters millilitre millilitres 毫升
L: L l liter liters litre litres 升
gal: gal gallon gallons
qt: quart quarts qt
pt: pint pints
cup: cup cups
acre: acre acres
ha: hectare hectares ha 公顷
N: N newton newtons 牛 牛顿
J: J joule joules
kJ: kJ kilojoule kilojoules
eV: eV electronvolt electronvolts
W: W watt watts
kW: kW kilowatt kilowatts
kWh: kWh
V: V volt volts
A: amp amps ampere amperes
mA: mA milliamp milliamps
Ω: Ω ohm ohms
kΩ: kΩ
MΩ: MΩ
F: farad farads
μF: μF microfarad microfarads
K: K kelvin kelvins
Hz: Hz hertz
kHz: kHz
MHz: MHz
GHz: GHz
Pa: Pa pascal pascals
kPa: kPa
atm: atm atmosphere atmospheres
mol: mol mole moles
erg: erg ergs
Å: Å angstrom angstroms
mph: mph
mpg: mpg
cwt: hundredweight cwt
dB: dB decibel decibels
cal: cal calorie calories
kcal: kcal
psi: psi
bpm: bpm
fps: fps
kph: kph kmh
rpm: rpm
bit: bit bits
byte: byte bytes
hp: hp horsepower
point: point points
""".strip()

CANONICAL = {name: line.split(": ")[0] for line in _NAMES.split("\n") for name in line.split(": ")[1].split()}
# Signs that stand before an amount or behind it.
CURRENCY_SIGNS = "$€£¥₹₩₽₺฿₫₱₪₦¢"
# Codes that may stand before an amount.
CURRENCY_CODES = frozenset("USD EUR GBP JPY CNY RMB INR KRW RUB CHF CAD AUD Rs US$ EURO".split())

# Units of two letters or more that may follow a number in plain text or in math mode without \text.
PLAIN = frozenset(
    name
    for name in CANONICAL
    if len(name) > 1
    and name.isascii()
    and name.isalpha()
    and name not in ("au", "pt", "pc", "bit", "try", "won", "rub")
)

# Words that name what was counted, and words that carry no meaning of their own.
_COUNTED = frozenset(
    (
        "unit units way ways value values solution solutions integer integers number numbers time times arrangement "
        "arrangements possibility possibilities outcome outcomes combination combinations permutation permutations "
        "piece pieces people person term terms item items object objects element elements answer answers result step steps "
        "case cases choice choices per each apiece"
    ).split()
)
_GENERIC = _COUNTED | frozenset(
    (
        "different distinct possible total in all of the a an altogether approximately exactly about real positive ordered "
        "such more left remaining overall"
    ).split()
)
_CHINESE_COUNTERS = frozenset(
    "个 只 人 次 种 名 本 张 条 辆 块 支 棵 页 岁 件 位 头 道 套 层 排 对 倍 单位 平方单位".split()
)
# Words that change what is claimed: never in a label.
STOPWORDS = frozenset(
    (
        "not isn't isnt aren't arent no nor never neither none or and but if unless except when where otherwise wrong "
        "incorrect false than least most maybe perhaps probably possibly either any for is are was were equals equal be "
        "being been has have had cannot can't cant can could would should might must may with without plus minus over to "
        "rather instead however actually wait unknown undefined between from until mod modulo divided multiplied by "
        "below above under beneath beyond past before out near nearly almost roughly around against upon "
        "into onto on at as so because since ish dozen tens hundred thousand million billion trillion tenths hundredths "
        "thousandths millionths half halves third thirds fourth fourths quarter fifth fifths sixth sixths seventh "
        "sevenths eighth eighths ninth ninths tenth twelfth twelfths hundredth thousandth one two three four five six "
        "seven eight nine ten eleven twelve twenty thirty forty fifty sixty seventy eighty ninety zero factorial choose "
        "sorry impossible nope yes guess fail fails failed exceeds contradicts misses score gross twos threes "
        "fours fives sixes sevens eights nines zillion zillions gazillion gazillions bazillion bazillions umpteen"
    ).split()
)
# Words that change what is claimed unless a noun stands behind them ("3 negative roots").
_NEVER_LAST = frozenset(
    (
        "odd even negative opposite inverse reciprocal power root base lower higher fewer less larger smaller bigger "
        "greater short shy off up down"
    ).split()
)
# What may stand behind "times" where the times are counted or compared ("7 times a day", "7 times faster").
_BEHIND_TIMES = frozenset(
    (
        "in per a an each apiece every total altogether overall exactly more left remaining daily weekly monthly yearly "
        "annually hourly faster slower heavier lighter brighter stronger weaker taller longer wider deeper older younger "
        "hotter colder richer cheaper louder closer farther further"
    ).split()
)
# Words behind which "of x" is a factor and not what is counted ("7 lots of x", but "7 values of x").
_AMOUNTS = frozenset("unit units lot lots time times per each apiece".split())
# Units that are a part of one: where the reference has no unit, they are worked out.
PARTS_OF_ONE = {"%": 100, "‰": 1000, "bp": 10**4, "ppm": 10**6, "ppb": 10**9, "ppt": 10**12}
_IN_WORDS = (
    (regex(r"\bbasis[\s-]+points?\b", re.IGNORECASE), "bp"),
    (regex(r"\bper[\s-]+mill?e?\b", re.IGNORECASE), "‰"),
    (regex(r"\b(?:parts?[\s-]+)?per[\s-]+thousand\b", re.IGNORECASE), "‰"),
    (regex(r"\bparts?[\s-]+per[\s-]+million\b", re.IGNORECASE), "ppm"),
    (regex(r"\bparts?[\s-]+per[\s-]+billion\b", re.IGNORECASE), "ppb"),
    (regex(r"\bparts?[\s-]+per[\s-]+trillion\b", re.IGNORECASE), "ppt"),
)
# Endings in -ed that are no participles; a participle at the end of a label speaks about the value ("13 rejected").
_NO_PARTICIPLES = frozenset(
    "red bed beds shed sled seed seeds speed speeds weed breed feed need deed reed hundred".split()
)

_WORD = regex(r"°[CF]|[Uu][Ss]\$|[^\W\d_]+(?:['’][a-z]+)?|[$€£¥₹₩₽₺฿₫₱₪₦¢%‰°]|\^?\{?\s*-?\s*\d+\s*\}?|[/*·]")
_PREFIXED = regex(r"[kMGTmμnpcdh](?:N|J|W|Wh|V|A|F|H|Hz|Pa|g|m|s|L|eV|T|mol|C|K|bar|B|cal|Sv|Bq)|[TH]|Wb|Sv|Bq|lx|lm")
_SQUARE, _CUBIC = frozenset(("square", "sq", "平方")), frozenset(("cubic", "cu", "立方"))
_ALIASES = {"mph": {"mi": 1, "h": -1}, "kph": {"km": 1, "h": -1}}


def read_unit(text: str, single: bool = False) -> str | None:
    """The normal form of a unit, label or remark: "" if it says nothing, None if it is not one.

    `single`: the number before it counts no more than one.

    >>> read_unit("square inches"), read_unit("in^2"), read_unit("miles per hour"), read_unit("right triangles")
    ('in^2', 'in^2', 'mi/h', 'label right triangle')
    >>> read_unit("contradiction"), read_unit("ordered pairs"), read_unit("pairs"), read_unit("basis points")
    ('remark contradiction', 'label pair', 'pair', 'bp')
    """
    plain = _plain(text)
    words = _WORD.findall(plain)
    if _WORD.sub("", plain).strip(" .,{}()"):
        return None
    if not words or len(words) > 14 or any(word.lower() in STOPWORDS or word[-3:] in ("n't", "n’t") for word in words):
        return None if words else ""
    powers: dict[str, int] = {}
    labels: list[str] = []
    state = _State()
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == "in" and following[:1].isalpha():  # "12 in all"
            continue
        if not _read_word(word, state, powers, labels):
            return None
    last = words[-1].lower()
    if last in _NEVER_LAST or (labels and last.endswith("ed") and last not in _NO_PARTICIPLES):
        return None
    low = [word.lower() for word in words]
    if _multiplies(words, low):
        return None
    if labels:
        said = remark(low, single, bool(powers) or any(word in _COUNTED for word in low))
        return (
            f"remark {said}" if said else "label " + " ".join([*(["pair"] if state.paired else []), *powers, *labels])
        )
    if state.paired:
        return "pair" if are_pairs(low) else "label pair"
    return _written(powers)


def _multiplies(words: list[str], low: list[str]) -> bool:
    """Whether the words make a product of the number before them: a letter that stands for a value, or something behind
    "times"."""
    for at, word in enumerate(words):
        if at and low[at - 1] == "times" and low[at] not in _BEHIND_TIMES:
            return True
        if _is_letters(word) and not _is_symbol(word, words, low, at) and not _is_name(words, low, at):
            return True
    return False


def _is_letters(word: str) -> bool:
    """Whether a word is one letter, or two or three in which nobody hears a word ("xy"); 平 and ° are none."""
    if not (word.isascii() and word.isalpha()):
        return False
    return len(word) == 1 or (len(word) <= 3 and word.islower() and not re.search(r"[aeiou]|[^x]y$", word))


def _is_symbol(word: str, words: list[str], low: list[str], at: int) -> bool:
    """Whether letters are a unit's symbol or an article; behind a word that is spelled out in the plural they are none
    ("7 meters m"), unless a negative power says so."""
    following = words[at + 1] if at + 1 < len(words) else ""
    if word in ("a", "fl") or low[at] in _SQUARE or low[at] in _CUBIC:
        return following != ""
    known = word in CANONICAL or word == "A" or _PREFIXED.fullmatch(word) is not None
    if at == 0 or not known:
        return known or (at == 0 and low[at] in CANONICAL)
    before = next((other for other in reversed(low[:at]) if other not in "*·"), "")
    spelled_out = is_plural(before) and before != "degrees"
    return len(word) > 1 or not spelled_out or following.lstrip("^{ ").startswith("-")


def _is_name(words: list[str], low: list[str], at: int) -> bool:
    """Whether a letter names what was counted or where: "values of x", "students in class A", "x intercepts"."""
    if len(words[at]) > 1:
        return False
    if at + 1 < len(words) and is_plural(low[at + 1]):
        return not any(is_plural(word) or word in CANONICAL or word in _AMOUNTS for word in low[:at])
    joint = max((place for place in range(at) if low[place] in ("of", "in")), default=0)
    counted = [word for word in low[:joint] if word not in _GENERIC or word in _COUNTED]
    if not counted or any(word in CANONICAL or word in _AMOUNTS for word in counted):
        return False
    return joint == at - 1 or (words[at].isupper() and not is_plural(low[at - 1]))


class _State:
    """What the words before say about the next: its power, and whether it divides; the last unit read; whether a word for
    what was counted stood there, whether one for pairs."""

    def __init__(self) -> None:
        self.power = 1
        self.divide = False
        self.last = ""
        self.counted = False
        self.paired = False


def _plain(text: str) -> str:
    """The text with one sign for each thing: powers by ^, no dots and hyphens between words, Chinese powers apart."""
    text = text.replace("²", "^2").replace("³", "^3").replace("µ", "μ").replace("⋅", "·")
    text = re.sub(r"(平方|立方)", r" \1 ", text)
    for pattern, name in _IN_WORDS if "p" in text or "P" in text else ():
        text = pattern.sub(name, text)
    text = re.sub(r"°\s*([CF])(?![A-Za-z])", r" °\1 ", text)
    text = re.sub(r"(?<=[A-Za-z])\.(?=\s|$|[A-Za-z])", " ", text)
    return re.sub(r"(?<![\^{])-(?!\s*\d)", " ", text)


def _read_word(word: str, state: _State, powers: dict[str, int], labels: list[str]) -> bool:
    """Take one word of a unit; False where it makes no unit and no label."""
    low = word.lower()
    if low in _SQUARE or low in _CUBIC:
        state.power = 2 if low in _SQUARE else 3
    elif word in "/*·" or (low in ("per", "a", "an") and state.last):
        if word == "/" or low in ("per", "a", "an"):
            state.divide = bool(state.last)
    elif low in ("squared", "cubed"):
        return (bool(state.last) or state.counted) and _raise(2 if low == "squared" else 3, state, powers)
    elif word.lstrip("^{ -").rstrip("} ").isdigit():
        return _raise(int(re.sub(r"[\^{} ]", "", word)), state, powers)
    elif name := CANONICAL.get(word) or CANONICAL.get(low) or (word if _PREFIXED.fullmatch(word) else None):
        if name in ("°C", "°F"):
            powers.pop("deg", None)
        for part, power in _ALIASES.get(name, {name: 1}).items():
            powers[part] = powers.get(part, 0) + power * state.power * (-1 if state.divide else 1)
        state.last, state.power, state.divide = name, 1, False
    elif low in PAIRS:
        state.paired = True
    elif low in _GENERIC or word in _CHINESE_COUNTERS:
        state.power, state.counted = 1, True
    elif word[0].isalpha() and word.isascii():
        labels.append(low[:-1] if low.endswith("s") and len(low) > 3 else low)
    else:
        return False
    return True


def _raise(exponent: int, state: _State, powers: dict[str, int]) -> bool:
    """An exponent behind the last unit; behind "square units" and the like it says nothing new."""
    if not state.last:
        return exponent in (2, 3)
    if not -9 <= exponent <= 9 or state.last not in powers:
        return False
    powers[state.last] *= exponent
    return True


def _written(powers: dict[str, int]) -> str:
    """The unit as a product of powers in alphabetical order: `kg·m/s^2`."""
    above = [_raised(name, power) for name, power in sorted(powers.items()) if power > 0]
    below = [_raised(name, -power) for name, power in sorted(powers.items()) if power < 0]
    return "·".join(above) + ("/" + "·".join(below) if below else "")


def _raised(name: str, power: int) -> str:
    return name if power == 1 else f"{name}^{power}"


def agree(gold: str, answer: str) -> bool:
    """Whether an answer's normal form can stand for the reference's; a unit may be missing, a remark has to be wanted."""
    if gold == answer or not answer:
        return True
    if answer.startswith("remark ") or answer == "pair":
        return answer == "pair" and "pair" in gold.split()
    if not gold or (gold == "pair" and "pair" in answer.split()):
        return True
    if gold.startswith("label ") and answer.startswith("label "):
        one, other = set(gold.split()[1:]), set(answer.split()[1:])
        return bool(one & other - {"pair"}) or ("pair" in one & other and {"pair"} in (one, other))
    return {gold, answer} in ({"deg", "°C"}, {"deg", "°F"})  # the scale may be missing like a unit

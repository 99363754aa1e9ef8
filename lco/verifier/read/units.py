"""Units of measure and the labels people put behind a number.

Two answers whose units are both known must name the same unit; a unit that is missing on one side is no contradiction.
Labels that only say what was counted ("ways", "solutions") are ignored.
"""

from __future__ import annotations

import re

_NAMES = """
$: $ dollar dollars usd buck bucks us$
€: € euro euros eur
£: £ pound_sterling gbp
¥: ¥ yen yuan rmb jpy
cent: cent cents ¢ penny pennies
rupee: rupee rupees rs inr
%: % percent percentage pct
deg: deg degree degrees
rad: rad radian radians
mm: mm millimeter millimeters millimetre millimetres
cm: cm centimeter centimeters centimetre centimetres
dm: dm decimeter decimeters decimetre decimetres
m: m meter meters metre metres
km: km kilometer kilometers kilometre kilometres
in: in inch inches
ft: ft foot feet
yd: yd yard yards
mi: mi mile miles
nm: nm nanometer nanometers nanometre nanometres
ly: ly lightyear lightyears
pc: pc parsec parsecs
au: au AU
mg: mg milligram milligrams
g: g gram grams gm
kg: kg kilogram kilograms kilo kilos
t: ton tons tonne tonnes
oz: oz ounce ounces
lb: lb lbs pound pounds
ms: ms millisecond milliseconds
s: s sec secs second seconds
minute: min mins minute minutes
h: h hr hrs hour hours
day: day days
week: week weeks
month: month months
year: yr yrs year years
ml: ml mL milliliter milliliters millilitre millilitres
L: L l liter liters litre litres
gal: gal gallon gallons
qt: quart quarts qt
pt: pint pints
cup: cup cups
acre: acre acres
ha: hectare hectares ha
N: N newton newtons
J: J joule joules
kJ: kJ kilojoule kilojoules
eV: eV electronvolt electronvolts
W: W watt watts
kW: kW kilowatt kilowatts
V: V volt volts
A: amp amps ampere amperes
Ω: ohm ohms
K: K kelvin kelvins
C: celsius centigrade
F: fahrenheit
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
kph: kph kmh
rpm: rpm
bit: bit bits
byte: byte bytes
hp: hp horsepower
point: point points
""".strip()

CANONICAL = {name: line.split(": ")[0] for line in _NAMES.split("\n") for name in line.split(": ")[1].split()}

# Units of two letters or more that may follow a number in plain text or in math mode without \text.
PLAIN = frozenset(
    name for name in CANONICAL if len(name) > 1 and name.isalpha() and name not in ("au", "pt", "pc", "bit")
)

# Words that name what was counted or carry no meaning of their own.
_GENERIC = frozenset(
    (
        "unit units way ways value values solution solutions integer integers number numbers time times arrangement "
        "arrangements possibility possibilities outcome outcomes combination combinations permutation permutations "
        "piece pieces people person different distinct possible total in all of the a an each altogether "
        "approximately exactly about term terms pair pairs item items object objects element elements answer answers "
        "result step steps case cases choice choices real positive ordered base such more left remaining per"
    ).split()
)
# Words after a number that change what is claimed: never a label.
STOPWORDS = frozenset(
    (
        "not isn't isnt no nor never neither none or and but if unless except when where otherwise wrong incorrect "
        "false than least most maybe perhaps either any for is are was were equals equal be cannot can't with "
        "without plus minus over to rather instead however actually wait unknown undefined between from until mod "
        "modulo divided multiplied by million billion thousand trillion hundred dozen hundredths tenths thousandths "
        "thirds halves"
    ).split()
)
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}

_WORD = re.compile(r"[a-zA-Z$€£¥¢%Å'µ]+|\^?\{?-?\d\}?|/")


def read_unit(text: str) -> str | None:
    """The normal form of a unit or label: "" if it says nothing, None if it is not one.

    >>> read_unit("square inches"), read_unit("in^2"), read_unit("miles per hour"), read_unit("right triangles")
    ('in^2', 'in^2', 'mi/h', 'label right triangle')
    """
    words = _WORD.findall(
        text.replace("-", " ").replace(".", " ").replace("^{", "^").replace("²", "^2").replace("³", "^3")
    )
    if len(words) > 9 or any(word.lower() in STOPWORDS for word in words if word not in ("for",)):
        return None
    parts: list[str] = []
    power, divide, unknown = "", False, False
    for word in words:
        low = word.lower()
        if low in ("square", "sq"):
            power = "^2"
        elif low in ("cubic", "cu"):
            power = "^3"
        elif low == "squared" or (word.strip("^{}") == "2" and parts):
            parts[-1:] = [parts[-1] + "^2"] if parts else []
        elif low == "cubed" or (word.strip("^{}") == "3" and parts):
            parts[-1:] = [parts[-1] + "^3"] if parts else []
        elif word.lstrip("^{").startswith("-") and parts:
            parts[-1] += "^" + word.strip("^{}")
        elif (low in ("per", "an", "a") and parts and not unknown) or word == "/":
            divide = bool(parts)
        elif word in CANONICAL or low in CANONICAL:
            name = CANONICAL.get(word) or CANONICAL[low]
            parts.append(("/" if divide else "") + name + power)
            power, divide = "", False
        elif low in _GENERIC or (word in ("^2", "^3", "^{2}", "^{3}") and not parts):
            power = ""
        elif word[0].isalpha():
            parts.append(low[:-1] if low.endswith("s") and len(low) > 3 else low)
            unknown = True
        else:
            return None
    if not parts:
        return ""
    if unknown:
        return "label " + " ".join(parts)
    joined = " ".join(parts).replace(" /", "/")
    return {"mi/h": "mph", "km/h": "kph"}.get(joined, joined)


def agree(one: str, other: str) -> bool:
    """Whether two normal forms can stand for the same thing."""
    if not one or not other or one == other:
        return True
    if one.startswith("label ") and other.startswith("label "):
        return bool(set(one.split()[1:]) & set(other.split()[1:]))
    return False

"""Edits that change results: by subject, a script, the edit, and the right value."""

from edit_cases.classes import CLASSES
from edit_cases.compiled import COMPILED
from edit_cases.constants import CONSTANTS
from edit_cases.declared import DECLARED
from edit_cases.functions import FUNCTIONS
from edit_cases.maps import MAPS
from edit_cases.modules import MODULES
from edit_cases.objects import OBJECTS
from edit_cases.reached import REACHED
from edit_cases.state import STATE

NOTICED = {
    "functions": FUNCTIONS,
    "modules": MODULES,
    "classes": CLASSES,
    "objects": OBJECTS,
    "constants": CONSTANTS,
    "map": MAPS,
    "numba": COMPILED,
    "reached": REACHED,
    "declared": DECLARED,
    "state": STATE,
}

"""The suite's losses inside other trainers. Nothing of the suite imports these modules, and none of the other trainers is
installed with it: `lco.integrations.trl` needs TRL, `lco.integrations.verl` needs verl, each where it is imported."""

"""Entities: the feature groups of a project say which there are; each becomes a node that no file declares.

The node ``entity.<name>`` reads the entity's feature groups, sorted by name. It stands where the first of them stands.
Groups that disagree about what the entity is do not stop the project: a warning says who disagrees and how, and the
entity is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from seeknal.dag.draft import Draft
from seeknal.errors import Problem
from seeknal.nodes.entity import EntityGroup, EntityKind, EntitySpec
from seeknal.nodes.feature_group import EVENT_TIME, FeatureGroupKind, FeatureGroupSpec


def entity_drafts(drafts: Iterable[Draft]) -> tuple[list[Draft], list[Problem]]:
    """Make the drafts of the entities of these nodes; and warnings, for entities that cannot be made."""
    groups: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.kind == FeatureGroupKind.name and isinstance(draft.spec, FeatureGroupSpec):
            # Names of tables do not depend on case in SQL, so neither do names of entities.
            groups.setdefault(draft.spec.entity_name.lower(), []).append(draft)
    made, warnings = [], []
    for _, members in sorted(groups.items()):
        members.sort(key=lambda draft: draft.name)
        warning = _disagreement(members)
        if warning is None:
            made.append(_entity(members))
        else:
            warnings.append(warning)
    return made, warnings


def _disagreement(members: Sequence[Draft]) -> Problem | None:
    """What keeps these groups from being one table."""
    first = members[0].spec
    message = f"entity '{first.entity_name}' is not made: "
    by_keys: dict[frozenset[str], list[Draft]] = {}
    for draft in members:
        by_keys.setdefault(frozenset(key.lower() for key in draft.spec.join_keys), []).append(draft)
    if len(by_keys) > 1:
        said = "; ".join(
            f"{', '.join(draft.name for draft in same)} {'has' if len(same) == 1 else 'have'} "
            f"[{', '.join(same[0].spec.join_keys)}]"
            for same in by_keys.values()
        )
        odd = list(by_keys.values())[1][0]
        hint = "give them the same join_keys, or another entity"
        return Problem(f"{message}its feature groups have different join keys: {said}", odd.place("entity"), hint)
    taken = {EVENT_TIME, *(key.lower() for key in first.join_keys)}
    for draft in members:
        if draft.name.lower() in taken:
            what = f"{draft.id} has the name of one of its columns"
            return Problem(f"{message}{what}", draft.place("name"), "rename the feature group")
    return None


def _entity(members: Sequence[Draft]) -> Draft:
    first = members[0]
    spec = EntitySpec(
        join_keys=first.spec.join_keys,
        feature_groups={
            draft.name: EntityGroup(event_time_col=draft.spec.materialization.event_time_col) for draft in members
        },
        inputs=[draft.id for draft in members],
    )
    fields = {
        "kind": EntityKind.name,
        "name": first.spec.entity_name,
        "inputs": [{"ref": node_id} for node_id in spec.inputs],
        "join_keys": spec.join_keys,
        "feature_groups": {
            name: {"event_time_col": group.event_time_col} for name, group in spec.feature_groups.items()
        },
    }
    return Draft(
        first.file,
        first.document,
        first.path,
        fields,
        kind=EntityKind.name,
        name=first.spec.entity_name,
        spec=spec,
        inputs=list(spec.inputs),
    )

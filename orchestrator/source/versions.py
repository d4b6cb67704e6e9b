# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of Debian's source packages and kernel images, on the mirror and in the store."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import InfraError
from orchestrator.source import debian
from orchestrator.source.debianimage import list_stored_versions, read_image_offers
from orchestrator.source.fetch import list_fetched_versions
from orchestrator.source.tree import DebianImageTree, DebianTree
from orchestrator.store.store import Store


@dataclass(frozen=True, slots=True)
class DebianVersion:
    """A version of a Debian tree. ``suites`` have it; they are empty when the mirror no longer offers it."""

    version: str
    suites: tuple[str, ...]
    is_fetched: bool


@dataclass(frozen=True, slots=True)
class DebianVersions:
    """The versions by tree, newest first. ``errors`` has the suites whose lists could not be updated."""

    trees: Mapping[str, tuple[DebianVersion, ...]]
    errors: Mapping[str, InfraError]


def list_versions(
    trees: Iterable[DebianTree | DebianImageTree], store: Store, *, max_age_s: float = debian.FRESH_S
) -> DebianVersions:
    """The versions of trees, from package lists that are at most ``max_age_s`` old."""
    trees = tuple(trees)
    errors = debian.update_lists(
        store, (suite for tree in trees for suite in tree.suites), max_age_s=max_age_s
    )
    return DebianVersions({tree.name: read_versions(tree, store) for tree in trees}, errors)


def find_versions(tree: DebianTree | DebianImageTree, wanted: Sequence[str], store: Store) -> DebianVersions:
    """The versions of a tree; the lists are updated if ``wanted`` versions are missing."""
    found = list_versions([tree], store)
    if all(complete_version(word, found.trees[tree.name]) for word in wanted):
        return found
    return list_versions([tree], store, max_age_s=debian.CURRENT_S)


def read_versions(tree: DebianTree | DebianImageTree, store: Store) -> tuple[DebianVersion, ...]:
    """The versions in the package lists that were updated last, and in the store; no network is used."""
    fetched: Collection[str]
    if isinstance(tree, DebianImageTree):
        fetched = list_stored_versions(tree, store)
        offered = {offer.version: offer.suites for offer in read_image_offers(tree, store)}
    else:
        fetched = list_fetched_versions(tree, store)
        offers = debian.read_offers(store, tree.package, tree.suites)
        offered = {offer.version: offer.suites for offer in offers}
    return tuple(
        DebianVersion(version, offered.get(version, ()), version in fetched)
        for version in sorted({*fetched, *offered}, key=debian.make_key, reverse=True)
    )


def complete_version(word: str, versions: Iterable[DebianVersion]) -> str:
    """The version that a word means: itself, or for ``6.1.170`` the newest package of it; empty for none."""
    known = [version.version for version in versions]
    if word in known:
        return word
    of_release = [version for version in known if version.startswith(f"{word}-")]
    # a rebuild for another release, which has a tilde, only if there is nothing else
    originals = [version for version in of_release if "~" not in version]
    return next(iter(originals or of_release), "")

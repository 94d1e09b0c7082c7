"""The retraining of a study's best trials, whose trainings are the queue of a companion study.

The order matters. Reruns of the candidates on fresh seeds and splits choose the winner. Its recipe is frozen and
recorded. Final models are trained by it on all training images. Only then is each tested once on the test set.

Any worker trains, and any worker freezes the recipe and queues the final models once all reruns are finished. Only the
process that concludes opens the test set.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from kmnist_search.data.search_data import StudyData
from kmnist_search.errors import TrainingsFailedError
from kmnist_search.evaluation.ledger import Ledger
from kmnist_search.evaluation.metrics import Recipe
from kmnist_search.evaluation.trained import Trained, over
from kmnist_search.retrain.choice import Choice, chosen
from kmnist_search.retrain.plan import SPACE, RetrainingPlan, longest_first
from kmnist_search.retrain.preparation import Preparation
from kmnist_search.run.join import join
from kmnist_search.run.options import RunOptions
from kmnist_search.run.search import Search
from kmnist_search.run.submission import prepare
from kmnist_search.saved_model.info import recipe_digest
from kmnist_search.study.opening import companion_name, find_companion, find_study
from kmnist_search.study.study import SearchStudy
from kmnist_search.study_file.schema import PlanFile, PlannedTraining, PlanTable
from kmnist_search.wording import count

#: The companion's attribute with the plan.
PLAN_KEY = "plan"


@dataclass(frozen=True, eq=False, kw_only=True)
class Retraining:
    """A retraining: the study whose winner is retrained, its companion with the trainings, and their plan."""

    source: SearchStudy
    companion: SearchStudy
    plan: RetrainingPlan
    data: StudyData

    def choice(self) -> Choice:
        """Return the choice among the candidates.

        Raises:
            TrainingsFailedError: not all reruns are finished.
        """
        reruns = self.plan.reruns()
        return chosen(self.plan, [self.finished(of_candidate) for of_candidate in reruns])

    def recipe(self, choice: Choice) -> Recipe:
        """Return the winner's recipe, not yet frozen."""
        config, data = choice.winner.final, self.data.of(self.plan.data.whole())
        return Recipe.frozen_now(
            config,
            digest=recipe_digest(config, data.digest),
            trial=choice.winner.trial,
            seeds=self.plan.final_seeds,
        )

    def add_finals(self) -> Sequence[str]:
        """Freeze the winner's recipe and queue its final models; return what to tell, nothing if that was done before.

        Raises:
            TrainingsFailedError: not all reruns are finished.
        """
        choice = self.choice()
        recipe = Ledger(self.source).freeze(self.recipe(choice))
        before = self.companion.counts().total
        added = self.companion.add(self.plan.finals(choice.winner)) - before
        if not added:
            return ()
        return [
            f"recipe {recipe.digest} of trial {choice.winner.trial} is frozen: {count(added, 'final model')} to train"
        ]

    def finished(self, trainings: Sequence[PlannedTraining]) -> list[Trained]:
        """Return trainings as they ended.

        Raises:
            TrainingsFailedError: some are not finished.
        """
        ended = over(self.companion, trainings)
        finished = [each for each in ended if each is not None]
        if missing := len(ended) - len(finished):
            raise TrainingsFailedError(
                f"{missing} of {self.plan.trainings} trainings did not finish; why: kmnist-search status "
                f"{self.companion.name}. The same command tries failed ones again."
            )
        return finished

    def planned_epochs(self) -> list[int]:
        """Return the epochs of each trial of the companion when all that follows is queued."""
        added = [each.training for each in self.companion.added()]
        queued = {json.dumps(training, sort_keys=True) for training in added}
        finals = [
            {json.dumps(each.spec.model_dump(mode="json"), sort_keys=True) for each in self.plan.finals(candidate)}
            for candidate in self.plan.candidates
        ]
        follow = min(len(of_candidate - queued) for of_candidate in finals)
        epochs = [int(training["config"]["train"]["epochs"]) for training in added]
        return [*epochs, *[self.plan.candidates[0].final.train.epochs] * follow]


def begin(preparation: Preparation, options: RunOptions) -> Search:
    """Queue the trainings of a plan that were not done before, and return the search that trains them.

    Raises:
        InputError: the images, the database or the options cannot be used; nothing was queued.
    """
    source, plan = preparation.study, preparation.plan
    options = replace(options, data_dir=preparation.data_dir)
    reruns = [training for of_candidate in plan.reruns() for training in of_candidate]
    settings = source.file.study
    file = PlanFile(
        study=PlanTable(
            name=companion_name(source.name),
            plan="best",
            retrains=source.name,
            trials=plan.trainings,
            max_retries=settings.max_retries,
            lease_seconds=settings.lease_seconds,
        ),
        train=source.file.train,
        space=dict(SPACE),
        trainings=tuple(longest_first(reruns or plan.finals(plan.candidates[0]))),
    )
    search = prepare(file if reruns else file.model_copy(update={"trainings": ()}), options)
    search = replace(search, file=file)
    for data in file.datas():  # of the final models, if there are no reruns
        search.data.of(data)
    search.study.optuna.set_user_attr(PLAN_KEY, plan.model_dump(mode="json"))
    retraining = Retraining(source=source, companion=search.study, plan=plan, data=search.data)
    search.study.record_planned_epochs(retraining.planned_epochs())
    if all(over(search.study, reruns)):
        retraining.add_finals()
    return _of(search, retraining)


def enlist(name: str | None, options: RunOptions) -> Search:
    """Join a study, or a retraining, as one of its workers.

    A worker that waits for trials leaves when trainings of the study's retraining wait.

    Raises:
        InputError: see `join`.
    """
    search = join(name, options)
    if source := search.study.settings["study"].get("retrains"):
        return rejoin(source, options)
    return replace(search, is_wanted_elsewhere=partial(is_waiting, search.study))


def is_waiting(source: SearchStudy) -> bool:
    """Return whether trainings for the retraining of a study are left to do."""
    companion = find_companion(source)
    if companion is None or PLAN_KEY not in companion.optuna.user_attrs:
        return False
    return companion.counts().unfinished > 0


def rejoin(name: str, options: RunOptions) -> Search:
    """Return the search that trains what is queued for the retraining of the study called `name`.

    Raises:
        InputError: there is none, or the options cannot be used.
    """
    search = join(companion_name(name), options)
    source = find_study(search.study.storage, name)
    plan = RetrainingPlan.model_validate_json(json.dumps(search.study.optuna.user_attrs[PLAN_KEY]))
    return _of(search, Retraining(source=source, companion=search.study, plan=plan, data=search.data))


def _of(search: Search, retraining: Retraining) -> Search:
    limits = replace(search.options.limits, waits="for others")
    return replace(
        search,
        options=replace(search.options, limits=limits),
        add_what_follows=partial(Retraining.add_finals, retraining),
    )

"""The README's recipes, run by the SDK that they are for (the one that is installed here): which requests they make, held against the API's model by botocore
and against what we promise by the tests (r2 …, r3 …: not on the contract's list)."""

import importlib.util
import logging

import smelt_clients as clients
from smelt_clients import expect, expect_equal, once, smelt_job, test

clients.home()

import smelt_recipes  # noqa: E402

KIND = "v2" if importlib.util.find_spec("sagemaker.estimator") else "v3"
logging.disable(logging.WARNING)


@once
def amazon():
    """Runs all blocks, one after another in one program, as a reader would."""
    amazon, names = smelt_recipes.Amazon(), {}
    blocks = smelt_recipes.blocks(KIND)
    expect(blocks, f"no block for {KIND} in the README")
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"README, {KIND} block {number}", "exec"), names)  # noqa: S102
    return amazon


def expect_training_job(job, hosts):
    expect(job["AlgorithmSpecification"]["TrainingImage"].endswith("/smelt:cu12"), f"{job['AlgorithmSpecification']}")
    expect_equal([job["ResourceConfig"]["InstanceType"], job["ResourceConfig"]["InstanceCount"]], ["ml.p3.8xlarge", hosts], "machines")
    expect(job["EnableManagedSpotTraining"] and job["CheckpointConfig"]["S3Uri"].startswith("s3://"), "spot with checkpoints")
    regexes = {metric["Name"]: metric["Regex"] for metric in job["AlgorithmSpecification"]["MetricDefinitions"]}
    expect("validation:accuracy" in regexes, f"metrics {sorted(regexes)}")
    expect_equal([channel["ChannelName"] for channel in job["InputDataConfig"]], ["train"], "channels")
    # What would be in hyperparameters.json is taken by train as it is.
    with smelt_job.Job(channel=None) as local:
        local.hyperparameters(job["HyperParameters"])
        said = local.run("--print-config", limit=20)
        expect(said.code == 0 and "fast50" in said.out and "warning" not in said.text.lower(), said.tail())


if KIND == "v2":
    @test("r2", "SDK v2: a spot training job on ml.p3.8xlarge, its hyperparameters taken by train")
    def estimator():
        expect_training_job(amazon().of("CreateTrainingJob")[0], 1)

    @test("r2b", "SDK v2: a tuning job for validation:accuracy, which is one of the metrics")
    def tuner():
        job = amazon().of("CreateHyperParameterTuningJob")[0]
        objective = job["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        expect_equal(objective, {"Type": "Maximize", "MetricName": "validation:accuracy"}, "objective")
        names = [metric["Name"] for metric in job["TrainingJobDefinition"]["AlgorithmSpecification"]["MetricDefinitions"]]
        expect("validation:accuracy" in names, f"metrics {names}")

    @test("r2c", "SDK v2: an endpoint, a serverless one, an async one, a batch transform job, a multi-model endpoint")
    def deployments():
        variants = {config["EndpointConfigName"]: config for config in amazon().of("CreateEndpointConfig")}
        expect_equal(sorted(variants), ["smelt", "smelt-async", "smelt-many", "smelt-serverless"], "endpoints")
        expect("ServerlessConfig" in variants["smelt-serverless"]["ProductionVariants"][0] and "AsyncInferenceConfig" in variants["smelt-async"], "their kinds")
        expect_equal(amazon().of("CreateTransformJob")[0]["BatchStrategy"], "MultiRecord", "batch strategy")
        modes = {model["ModelName"]: model["PrimaryContainer"].get("Mode") for model in amazon().of("CreateModel")}
        expect_equal(modes["smelt-many"], "MultiModel", "mode")
        expect(all(model["PrimaryContainer"]["Image"].endswith("/smelt:cpu") for model in amazon().of("CreateModel")), "images")
else:
    @test("r3", "SDK v3: a spot training job on two ml.p3.8xlarge, its hyperparameters taken by train")
    def trainer():
        expect_training_job(amazon().of("CreateTrainingJob")[0], 2)


if __name__ == "__main__":
    smelt_job.main()

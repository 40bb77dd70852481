"""The command line of `python -m benchmarks`."""

import os
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, add_completion=False, help="Measurements, each beside its peer in the same run."
)


@app.command("embed")
def bench_embed(
    model: Annotated[str, typer.Option(help="model id; vit_small: ViT-S/14 with random weights")] = "vit_small",
    num_images: Annotated[int, typer.Option("-n", help="JPEG files")] = 256,
    side: Annotated[int, typer.Option(help="pixels of their short side")] = 512,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Images per second of the embedding pass, a plain loop and the bare forward, in one run."""
    from benchmarks import embed, figures

    found = embed.bench_embed(model=model, num_images=num_images, side=side)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@app.command("feed")
def bench_feed(
    num_images: Annotated[int, typer.Option("-n", help="JPEG files of each size")] = 96,
    repeats: Annotated[int, typer.Option(help="runs of each way, of which the median counts")] = 5,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The trainer's multi-crop and its parts beside torchvision v2, and its whole feed: crops per second and core."""
    from benchmarks import feed, figures

    found = feed.bench_feed(num_images=num_images, repeats=repeats)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@app.command("kmeans")
def bench_kmeans(
    num_seeds: Annotated[int, typer.Option("--seeds", help="seeds of the trees")] = 10,
    threads: Annotated[int, typer.Option(help="of every peer")] = 2,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """k-means and trees beside faiss and scikit-learn: time, memory, inertia, entropy of balanced samples."""
    from benchmarks import figures, kmeans

    found = kmeans.bench_kmeans(num_seeds=num_seeds, threads=threads)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@app.command("copies")
def bench_copies(
    folder: Annotated[Path | None, typer.Option(help="pictures to plant copies of; none: the bundled ones")] = None,
    num_pictures: Annotated[int, typer.Option("-n", help="pictures at most")] = 338,
    seed: Annotated[int, typer.Option(help="of the edits")] = 0,
    swap: Annotated[bool, typer.Option("--swap", help="judge on the first half of the pictures")] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Precision and recall of copy-detection methods on planted chains of web edits."""
    from benchmarks import copies

    scores = copies.measure_copies(folder or copies.PHOTOS, num_pictures=num_pictures, seed=seed, swap=swap)
    typer.echo(copies.as_json(scores) if as_json else copies.format_copies(scores))


@app.command("join")
def bench_join(
    num_vectors: Annotated[int, typer.Option("-n", help="vectors")] = 1_000_000,
    compare_size: Annotated[int, typer.Option(help="a second size, without faiss; 0: none")] = 0,
    dim: Annotated[int, typer.Option(help="dimensions")] = 256,
    probes: Annotated[int, typer.Option(help="lists that a vector looks into")] = 4,
    threads: Annotated[int | None, typer.Option(help="of every phase and of faiss; none: all cores")] = None,
    workdir: Annotated[Path | None, typer.Option(help="folder to keep the tables in; none: a temporary one")] = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Self-join of planted vectors from disk, beside faiss's inverted lists, in one run."""
    from benchmarks import figures
    from benchmarks.join import bench_join as measure

    found = []
    for size in filter(None, (num_vectors, compare_size)):
        found += measure(
            size,
            dim=dim,
            num_probes=probes,
            threads=threads or os.cpu_count() or 1,
            workdir=workdir and workdir / str(size),
            with_faiss=size == num_vectors,
        )
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("components")
def bench_components(
    num_images: Annotated[int, typer.Option("-n", help="images of the pool")] = 10_000_000,
    edges: Annotated[float, typer.Option(help="pairs for each image")] = 1.0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Components and verdicts of streamed pairs, beside scipy: images per second, memory an image."""
    from benchmarks import figures
    from benchmarks.components import bench_components as measure

    found = measure(num_images, edges_per_image=edges)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("junk")
def bench_junk(
    num_each: Annotated[int, typer.Option("-n", help="generated pictures of each kind")] = 20,
    seed: Annotated[int, typer.Option(help="of pictures and run")] = 0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Share of generated pictures in a pool of photographs, in a balanced draw, and with screening before it."""
    from benchmarks import figures
    from benchmarks.junk import bench_junk as measure

    found = measure(num_each=num_each, seed=seed)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("parts")
def bench_parts(
    num_parts: Annotated[int, typer.Option("-n", help="parts of every table; 18,000 are 1.2 billion images")] = 20_000,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """What many parts cost the framework: tables of two rows a part made, resumed, planned, listed."""
    from benchmarks import figures
    from benchmarks.parts import bench_parts as measure

    found = measure(num_parts)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("incremental")
def bench_incremental(
    num_images: Annotated[int, typer.Option("-n", help="images of the grown pool")] = 400,
    seed: Annotated[int, typer.Option(help="of the pool")] = 0,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """A pool that grows by a quarter: what the second run reuses, and how its result differs from a full run's."""
    from benchmarks import figures
    from benchmarks.incremental import bench_incremental as measure

    found = measure(num_images, seed=seed)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("mnist")
def bench_mnist(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pretrain a tiny ViT on MNIST-5k and compare it by k-NN with its own initialisation."""
    from benchmarks import figures, mnist

    found = mnist.bench_mnist(workdir)
    typer.echo(figures.as_json(mnist.as_figures(found)) if json_ else mnist.format_table(found))


@app.command("curation")
def bench_curation(
    workdir: Annotated[Path, typer.Argument(help="folder for pools, runs, checkpoints and exports")],
    num_seeds: Annotated[int, typer.Option("--seeds", help="pools, each with its own trainings")] = 3,
    first_seed: Annotated[int, typer.Option(help="the others follow")] = 0,
    num_images: Annotated[int, typer.Option("--images", help="images of either subset")] = 300,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pretrain on a curated and on a random subset of a long-tailed pool, and compare them on a balanced test set."""
    from benchmarks import curation, figures

    seeds = range(first_seed, first_seed + num_seeds)
    found = curation.bench_curation(workdir, seeds=seeds, num_images=num_images)
    typer.echo(figures.as_json(curation.as_figures(found)) if json_ else curation.format_table(found))


@app.command("objectives")
def bench_objectives(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports, one inside for each")],
    configs: Annotated[list[str] | None, typer.Option("--config", help="several; none: all that are bundled")] = None,
    iterations: Annotated[int | None, typer.Option(help="of every training; none: each config's own")] = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pretrain by every objective on MNIST-5k: its loss, and its k-NN beside its own initialisation."""
    from benchmarks import figures, objectives

    overrides = [] if iterations is None else [f"iterations={iterations}"]
    found = objectives.bench_objectives(workdir, configs=configs, overrides=overrides)
    typer.echo(figures.as_json(objectives.as_figures(found)) if json_ else objectives.format_table(found))


@app.command("photos")
def bench_photos(
    workdir: Annotated[Path, typer.Argument(help="folder for shards, checkpoints and exports")],
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Pretrain on the bundled photographs: k-NN beside the initialisation, figures beside those of a collapse."""
    from benchmarks import figures, photos

    found = photos.as_figures(photos.bench_photos(workdir))
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))


@app.command("select")
def bench_select(
    num_images: Annotated[int, typer.Option("-n", help="images in the pool")] = 1_000_000,
    leaves: Annotated[int, typer.Option(help="leaf clusters")] = 10_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """A balanced draw from synthetic clusters, beside numpy and DuckDB: images per second, memory an image."""
    from benchmarks import figures
    from benchmarks.select import bench_select as measure

    found = measure(num_images, leaves, workdir=workdir)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@app.command("retrieve")
def bench_retrieve(
    num_queries: Annotated[int, typer.Option("-n", help="curated images that ask")] = 100_000,
    k: Annotated[int, typer.Option(help="images a query")] = 32,
    pool: Annotated[int, typer.Option(help="images in the pool")] = 2_000_000,
    workdir: Annotated[Path | None, typer.Option(help="folder for the tables, removed at the end")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """From the edges of a search to the retrieved rows, beside numpy and DuckDB: edges per second, memory."""
    from benchmarks import figures
    from benchmarks.retrieve import bench_retrieve as measure

    found = measure(num_queries, k, pool, workdir=workdir)
    typer.echo(figures.as_json(found) if as_json else figures.format_figures(found))


@app.command("train")
def bench_train(
    preset: Annotated[str, typer.Option(help="tiny, small, base, large or giant")] = "small",
    batch: Annotated[int, typer.Option(help="images a step")] = 8,
    prototypes: Annotated[int, typer.Option(help="outputs of a head")] = 65_536,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or both")] = "both",
    steps: Annotated[int, typer.Option(help="measured steps of each way")] = 3,
    tied: Annotated[bool, typer.Option("--tied/--untied", help="one head for both losses, or two")] = True,
    drop_path: Annotated[float, typer.Option(help="rate of stochastic depth")] = 0.3,
    centering: Annotated[str, typer.Option(help="softmax or sinkhorn")] = "softmax",
    threads: Annotated[int | None, typer.Option(help="of every way; none: all cores")] = None,
    peer: Annotated[Path | None, typer.Option(help="interpreter of an environment that has lightly-train")] = None,
    json_: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """The training step: CPU seconds, share of the machine's products, memory, and lightly-train's beside it."""
    from benchmarks import figures, train

    setting = train.Setting(
        preset=preset,
        batch=batch,
        prototypes=prototypes,
        tied=tied,
        drop_path=drop_path,
        centering=centering,
        steps=steps,
        threads=threads or os.cpu_count() or 1,
    )
    found = train.bench_train(setting, train.parse_precisions(precision), peer=peer)
    typer.echo(figures.as_json(found) if json_ else figures.format_figures(found))

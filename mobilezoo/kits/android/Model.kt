package org.mobilezoo.classify

/** What is recorded of the network: how an image becomes its input, and what its output means. */
class Model(
    val file: String,
    val shape: IntArray,
    val height: Int,
    val width: Int,
    val channelsLast: Boolean,
    val blueFirst: Boolean,
    val type: String,
    val scale: Double?,
    val zero: Int,
    val mean: DoubleArray,
    val std: DoubleArray,
    val interpolation: String,
    val cropPct: Double,
    val cropMode: String,
    val output: String,
    val outputIndex: Int,
    val outputType: String,
    val outputScale: Double?,
    val outputZero: Int,
    val labels: List<String>,
) {
    val channels get() = mean.size
}

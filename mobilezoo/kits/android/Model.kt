package org.mobilezoo.classify

/**
 * What is recorded of the network: how an image becomes its input, and what its output means. `outputShape` is that of one
 * image's boxes or mask, else empty; a box counts from the probability `leastScore`, and of two of a class whose
 * intersection over union is above `mostOverlap` the more probable one.
 */
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
    val outputShape: IntArray,
    val leastScore: Double,
    val mostOverlap: Double,
    val output: String,
    val outputIndex: Int,
    val outputType: String,
    val outputScale: Double?,
    val outputZero: Int,
    val labels: List<String>,
) {
    val channels get() = mean.size
}

package org.mobilezoo.classify

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.cos
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sin

/** 8-bit pixels, row by row, `channels` bytes each. */
class Pixels(val width: Int, val height: Int, val channels: Int, val bytes: ByteArray)

/** 0xAARRGGBB colors, as Android's bitmaps give them, as RGB or grey (ITU-R 601 luma in integers), white behind them. */
fun pixelsOf(colors: IntArray, width: Int, height: Int, channels: Int): Pixels {
    val bytes = ByteArray(width * height * channels)
    for (i in colors.indices) {
        val alpha = colors[i] ushr 24
        val rgb = IntArray(3) { c ->
            val value = (colors[i] shr (16 - 8 * c)) and 255
            if (alpha == 255) value else (value * alpha + 255 * (255 - alpha) + 127) / 255
        }
        if (channels == 1) {
            bytes[i] = ((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) shr 16).toByte()
        } else {
            for (c in 0 until 3) bytes[3 * i + c] = rgb[c].toByte()
        }
    }
    return Pixels(width, height, channels, bytes)
}

/** (height, width) that an image is resized to before the crop is taken. */
fun resizedSize(h: Int, w: Int, model: Model): Pair<Int, Int> {
    val toH = (model.height / model.cropPct).toInt()
    val toW = (model.width / model.cropPct).toInt()
    if (model.cropMode == "squash") return toH to toW
    if (model.cropMode == "center" && toH == toW) {
        val short = min(h, w).toLong()
        return (toH.toLong() * h / short).toInt() to (toH.toLong() * w / short).toInt()
    }
    val ofH = h.toDouble() / toH
    val ofW = w.toDouble() / toW
    val ratio = if (model.cropMode == "border") max(ofH, ofW) else min(ofH, ofW)
    return Math.rint(h / ratio).toInt() to Math.rint(w / ratio).toInt()
}

/** First row or column of the crop in a resized image; negative where that is smaller. */
fun cropStart(length: Int, wanted: Int) =
    if (wanted > length) -((wanted - length) / 2) else Math.rint((length - wanted) / 2.0).toInt()

/**
 * An image becomes the network's input exactly as the model says. The resampling repeats Pillow's arithmetic for 8-bit
 * images: two passes, columns first, weights with 22 fractional bits, rounded to bytes after each pass. (Pillow 13 takes
 * rows first where that is cheaper: then a byte may differ by one.)
 */
class Prepare(private val model: Model) {
    private class Axis(val first: IntArray, val weights: Array<IntArray>)

    private val reach = mapOf("box" to 0.5, "bicubic" to 2.0, "lanczos" to 3.0)[model.interpolation] ?: 1.0

    /** The input tensor, the whole batch filled with copies. */
    fun tensor(image: Pixels): ByteBuffer {
        val crop = fit(image)
        val count = model.height * model.width
        val size = if (model.type == "float32") 4 else 1
        val tables = Array(model.channels) { c -> DoubleArray(256) { valueOf(it, c) } }
        val buffer = ByteBuffer.allocateDirect(model.shape[0] * count * model.channels * size).order(ByteOrder.nativeOrder())
        repeat(model.shape[0]) {
            for (i in 0 until count * model.channels) {
                val (pixel, place) = if (model.channelsLast) i / model.channels to i % model.channels else i % count to i / count
                val channel = if (model.blueFirst && model.channels == 3) 2 - place else place
                val value = tables[channel][crop.bytes[pixel * model.channels + channel].toInt() and 255]
                if (size == 4) buffer.putFloat(value.toFloat()) else buffer.put(value.toInt().toByte())
            }
        }
        buffer.rewind()
        return buffer
    }

    /** Resizes an image and cuts the part from it that the network sees. */
    fun fit(image: Pixels): Pixels {
        val (height, width) = resizedSize(image.height, image.width, model)
        require(height > 0 && width > 0) { "too narrow an image" }
        val resized = acrossRows(acrossColumns(image, width), height)
        val c = image.channels
        val bytes = ByteArray(model.height * model.width * c)
        if (model.cropMode == "border") for (i in bytes.indices) bytes[i] = Math.rint(255 * model.mean[i % c]).toInt().toByte()
        val top = cropStart(height, model.height)
        val left = cropStart(width, model.width)
        val first = max(0, -left)
        val last = min(model.width, width - left)
        for (y in max(0, -top) until min(model.height, height - top)) {
            val from = ((y + top) * width + first + left) * c
            resized.bytes.copyInto(bytes, (y * model.width + first) * c, from, from + (last - first) * c)
        }
        return Pixels(model.width, model.height, c, bytes)
    }

    /** The network's number for a byte of a channel, in single precision as in training. */
    private fun valueOf(pixel: Int, channel: Int): Double {
        if (model.type == "uint8" && model.scale == null) return pixel.toDouble()
        val value = (pixel / 255f - model.mean[channel].toFloat()) / model.std[channel].toFloat()
        if (model.type == "float32") return value.toDouble()
        val whole = Math.rint((value / (model.scale ?: 1.0).toFloat()).toDouble()) + model.zero
        return if (model.type == "int8") whole.coerceIn(-128.0, 127.0) else whole.coerceIn(0.0, 255.0)
    }

    private fun weight(x: Double): Double {
        val t = abs(x)
        return when (model.interpolation) {
            "box" -> if (x > -0.5 && x <= 0.5) 1.0 else 0.0
            "bilinear" -> max(0.0, 1 - t)
            "hamming" -> if (t >= 1) 0.0 else sinc(x) * (0.54 + 0.46 * cos(PI * x))
            "lanczos" -> if (x >= -3 && x < 3) sinc(x) * sinc(x / 3) else 0.0
            else -> {
                val a = -0.5
                if (t < 1) ((a + 2) * t - (a + 3)) * t * t + 1 else if (t < 2) (((t - 5) * t + 8) * t - 4) * a else 0.0
            }
        }
    }

    private fun sinc(x: Double) = if (x == 0.0) 1.0 else sin(PI * x) / (PI * x)

    private fun axis(from: Int, to: Int): Axis {
        val scale = from.toDouble() / to
        if (model.interpolation == "nearest") {
            var place = scale * 0.5 // summed up as Pillow does, rounding included
            val first = IntArray(to) { min(from - 1, place.toInt()).also { place += scale } }
            return Axis(first, Array(to) { intArrayOf(1 shl BITS) })
        }
        val stretch = max(scale, 1.0)
        val support = reach * stretch
        val first = IntArray(to) { max(0, ((it + 0.5) * scale - support + 0.5).toInt()) }
        val weights = Array(to) { i ->
            val center = (i + 0.5) * scale
            val end = min(from, (center + support + 0.5).toInt())
            val exact = DoubleArray(end - first[i]) { weight((it + first[i] - center + 0.5) * (1 / stretch)) }
            var sum = 0.0
            for (value in exact) sum += value
            IntArray(exact.size) {
                val share = if (sum != 0.0) exact[it] / sum else exact[it]
                ((if (share < 0) -0.5 else 0.5) + share * (1 shl BITS)).toInt()
            }
        }
        return Axis(first, weights)
    }

    private fun acrossColumns(image: Pixels, width: Int): Pixels {
        if (width == image.width) return image
        val axis = axis(image.width, width)
        val c = image.channels
        val out = ByteArray(width * image.height * c)
        for (y in 0 until image.height) for (x in 0 until width) for (channel in 0 until c) {
            var sum = HALF
            var at = (y * image.width + axis.first[x]) * c + channel
            for (w in axis.weights[x]) {
                sum += (image.bytes[at].toInt() and 255) * w
                at += c
            }
            out[(y * width + x) * c + channel] = (sum shr BITS).coerceIn(0, 255).toByte()
        }
        return Pixels(width, image.height, c, out)
    }

    private fun acrossRows(image: Pixels, height: Int): Pixels {
        if (height == image.height) return image
        val axis = axis(image.height, height)
        val stride = image.width * image.channels
        val out = ByteArray(stride * height)
        val sums = IntArray(stride)
        for (y in 0 until height) {
            sums.fill(HALF)
            var at = axis.first[y] * stride
            for (w in axis.weights[y]) for (i in 0 until stride) sums[i] += (image.bytes[at++].toInt() and 255) * w
            for (i in 0 until stride) out[y * stride + i] = (sums[i] shr BITS).coerceIn(0, 255).toByte()
        }
        return Pixels(image.width, height, image.channels, out)
    }

    private companion object {
        const val BITS = 22
        const val HALF = 1 shl (BITS - 1)
    }
}

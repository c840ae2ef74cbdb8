package org.mobilezoo.classify

import android.content.Context
import android.graphics.Bitmap
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import org.json.JSONArray
import org.json.JSONObject
import org.tensorflow.lite.DataType
import org.tensorflow.lite.Interpreter

/** The network of the app's assets. Not safe for several threads: use it from one. */
class Network(context: Context) : AutoCloseable {
    private val told = JSONObject(context.assets.open("model.json").bufferedReader().use { it.readText() })
    private val interpreter = context.assets.openFd(told.getString("file")).use { opened ->
        opened.createInputStream().channel.use {
            Interpreter(it.map(FileChannel.MapMode.READ_ONLY, opened.startOffset, opened.length))
        }
    }
    val model: Model
    private val prepare: Prepare

    init {
        val shape = told.getJSONObject("input").getJSONArray("shape").ints()
        if (!interpreter.getInputTensor(0).shape().contentEquals(shape)) interpreter.resizeInput(0, shape)
        interpreter.allocateTensors()
        model = modelOf(told, interpreter.getOutputTensor(told.getInt("output_index")).dataType())
        prepare = Prepare(model)
    }

    /** What the file answers for an upright image, as real numbers. */
    fun answer(image: Bitmap): FloatArray {
        val colors = IntArray(image.width * image.height)
        image.getPixels(colors, 0, image.width, 0, 0, image.width, image.height)
        val input = prepare.tensor(pixelsOf(colors, image.width, image.height, model.channels))
        val answers = (0 until interpreter.outputTensorCount).associateWith {
            ByteBuffer.allocateDirect(interpreter.getOutputTensor(it).numBytes()).order(ByteOrder.nativeOrder()) as Any
        }
        interpreter.runForMultipleInputsOutputs(arrayOf(input), answers)
        return numbersOf(answers.getValue(model.outputIndex) as ByteBuffer, model)
    }

    override fun close() = interpreter.close()
}

private fun JSONArray.ints() = IntArray(length()) { getInt(it) }

private fun JSONArray.doubles() = DoubleArray(length()) { getDouble(it) }

private fun modelOf(told: JSONObject, answers: DataType): Model {
    val input = told.getJSONObject("input")
    val prep = told.getJSONObject("preprocessing")
    val size = told.getJSONArray("size").ints()
    val given = input.optJSONObject("quantization")
    val out = told.optJSONObject("output_quantization")
    val boxes = told.optJSONObject("boxes")
    val labels = told.getJSONArray("labels")
    return Model(
        file = told.getString("file"),
        shape = input.getJSONArray("shape").ints(),
        height = size[0],
        width = size[1],
        channelsLast = input.getString("layout") == "NHWC",
        blueFirst = input.getString("colors") == "BGR",
        type = input.getString("dtype"),
        scale = given?.getDouble("scale"),
        zero = given?.getInt("zero_point") ?: 0,
        mean = prep.getJSONArray("mean").doubles(),
        std = prep.getJSONArray("std").doubles(),
        interpolation = prep.getString("interpolation"),
        cropPct = prep.getDouble("crop_pct"),
        cropMode = prep.getString("crop_mode"),
        outputShape = told.optJSONArray("output_shape")?.ints() ?: IntArray(0),
        leastScore = boxes?.getDouble("score") ?: 0.0,
        mostOverlap = boxes?.getDouble("overlap") ?: 0.0,
        output = told.getString("output"),
        outputIndex = told.getInt("output_index"),
        outputType = when (answers) {
            DataType.FLOAT32 -> "float32"
            DataType.INT8 -> "int8"
            DataType.UINT8 -> "uint8"
            else -> error("output of type $answers")
        },
        outputScale = out?.getDouble("scale"),
        outputZero = out?.getInt("zero_point") ?: 0,
        labels = List(labels.length()) { labels.getString(it) },
    )
}

"""Small products of agencies, written by the real libraries in the structure in which the agencies deliver them."""

from xml.etree import ElementTree

import numpy as np

EMIT_TRANSFORM = (-117.5, 0.000542232520256367, -0.0, 34.25, -0.0, -0.000542232520256367)  # GDAL's order
WGS84 = (
    'GEOGCS["WGS 84",DATUM["WGS_1984",SPHEROID["WGS 84",6378137,298.257223563]],PRIMEM["Greenwich",0],'
    'UNIT["degree",0.0174532925199433],AXIS["Latitude",NORTH],AXIS["Longitude",EAST],AUTHORITY["EPSG","4326"]]'
)


def write_emit(path, cube, wavelengths, good):
    """EMIT_L2A_RFL: root variable, groups `sensor_band_parameters` and `location`; the first pixel is missing."""
    netCDF4 = __import__("netCDF4")
    height, width, bands = cube.shape
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        for name, size in zip(("downtrack", "crosstrack", "bands"), cube.shape):
            file.createDimension(name, size)
        file.createDimension("ortho_y", height + 1)
        file.createDimension("ortho_x", width + 2)
        options = {"zlib": True, "chunksizes": (min(2, height), width, bands), "fill_value": np.float32(-9999)}
        data = file.createVariable("reflectance", "f4", ("downtrack", "crosstrack", "bands"), **options)
        data.long_name, data.units = "Surface Reflectance", "unitless"
        stored = cube.astype(np.float32)
        stored[0, 0] = -9999
        data[:] = stored
        parameters = file.createGroup("sensor_band_parameters")
        for name, values, kind in (
            ("wavelengths", wavelengths, "f4"),
            ("fwhm", np.full(bands, 8.5), "f4"),
            ("good_wavelengths", good, "u1"),
        ):
            parameters.createVariable(name, kind, ("bands",))[:] = values
        location = file.createGroup("location")
        for name in ("lon", "lat", "elev"):
            location.createVariable(name, "f8", ("downtrack", "crosstrack"))[:] = 1.0
        glt_x = np.zeros((height + 1, width + 2), np.int32)
        glt_y = np.zeros_like(glt_x)
        glt_x[1:, 1 : width + 1] = np.arange(1, width + 1)  # shifted by one row and column, mirrored up and down
        glt_y[1:, 1 : width + 1] = np.arange(height, 0, -1)[:, None]
        for name, values in (("glt_x", glt_x), ("glt_y", glt_y)):
            location.createVariable(name, "i4", ("ortho_y", "ortho_x"), fill_value=np.int32(0))[:] = values
        file.title = "EMIT L2A Estimated Surface Reflectance 60 m V001"
        file.time_coverage_start = "2022-08-14T16:07:20+0000"
        file.geotransform = np.array(EMIT_TRANSFORM)
        file.spatial_ref = WGS84
    return path


def write_prisma(path, vnir, swir, centers, scales=(0.0, 0.8, 0.01, 0.7)):
    """PRS_L2D_STD: cubes (rows, bands, columns) of uint16 with falling wavelengths and bands that are not there.

    Args:
        path: the file.
        vnir: (H, W, B1) numbers.
        swir: (H, W, B2) numbers.
        centers: wavelengths of both, falling; 0 where a band is not there.
        scales: minimum and maximum of VNIR, then of SWIR.
    """
    h5py = __import__("h5py")
    with h5py.File(path, "w") as file:
        swath = "HDFEOS/SWATHS/PRS_L2D_HCO"
        for name, numbers, wavelengths, low, high in (
            ("VNIR", vnir, centers[0], *scales[:2]),
            ("SWIR", swir, centers[1], *scales[2:]),
        ):
            stored = numbers.astype(np.uint16).transpose(0, 2, 1)
            fields = file.require_group(f"{swath}/Data Fields")
            fields.create_dataset(f"{name}_Cube", data=stored, chunks=True, compression="gzip")
            fields.create_dataset(f"{name}_PIXEL_L2_ERR_MATRIX", data=np.zeros(stored.shape, np.uint8))
            key = name.capitalize()
            file.attrs[f"List_Cw_{key}"] = np.asarray(wavelengths, np.float32)
            file.attrs[f"List_Fwhm_{key}"] = np.where(np.asarray(wavelengths) > 0, 12, 0).astype(np.float32)
            file.attrs[f"List_Cw_{key}_Flags"] = (np.asarray(wavelengths) > 0).astype(np.int32)
            file.attrs[f"L2Scale{key}Min"] = np.float32(low)
            file.attrs[f"L2Scale{key}Max"] = np.float32(high)
        height, width, _ = vnir.shape
        for name in ("Latitude", "Longitude"):
            file[f"{swath}/Geolocation Fields/{name}"] = np.ones((height, width), np.float32)
        file["HDFEOS INFORMATION/StructMetadata.0"] = "GROUP=SwathStructure"
        file.attrs["Epsg_Code"] = np.int64(32633)
        file.attrs["Processing_Level"] = np.bytes_("2D")
        file.attrs["Product_StartTime"] = np.bytes_("2023-06-01T10:00:00.000000")
        file.attrs["Product_ULcorner_easting"], file.attrs["Product_ULcorner_northing"] = 500015.0, 4999985.0
        file.attrs["Product_LRcorner_easting"] = 500015.0 + 30 * (width - 1)
        file.attrs["Product_LRcorner_northing"] = 4999985.0 - 30 * (height - 1)
    return path


def write_tiff(path, stored, transform=(30.0, 0.0, 400000.0, 0.0, -30.0, 5800000.0), crs="EPSG:32633", **options):
    """(H, W, B) numbers as a GeoTIFF; `tags`, `descriptions`, `scales`, `band_tags` besides rasterio's options."""
    rasterio = __import__("rasterio")
    extra = {key: options.pop(key, None) for key in ("tags", "descriptions", "scales", "offsets", "band_tags")}
    height, width, bands = stored.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands, "dtype": stored.dtype.name}
    profile |= {"crs": crs, "transform": rasterio.Affine(*transform), "compress": "deflate"} | options
    with rasterio.open(path, "w", **profile) as image:
        image.write(np.moveaxis(stored, 2, 0))
        for key in ("descriptions", "scales", "offsets"):
            if extra[key] is not None:
                setattr(image, key, extra[key])
        image.update_tags(**(extra["tags"] or {}))
        for band, tags in enumerate(extra["band_tags"] or [], start=1):
            image.update_tags(band, **tags)
    return path


def write_enmap(folder, stored, wavelengths, gain=1e-4, nodata=-32768):
    """EnMAP L2A: image and metadata, named as DLR names them; returns the image."""
    stem = "ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010302_20230628T165614Z-"
    image = write_tiff(folder / f"{stem}SPECTRAL_IMAGE.TIF", stored, nodata=nodata, tiled=True)
    root = ElementTree.Element("level_X", {"xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance"})
    base = ElementTree.SubElement(root, "base")
    ElementTree.SubElement(base, "level").text = "L2A"
    ElementTree.SubElement(ElementTree.SubElement(base, "temporalCoverage"), "startTime").text = "2022-07-24T10:45:26Z"
    specific = ElementTree.SubElement(root, "specific")
    ElementTree.SubElement(specific, "backgroundValue").text = str(nodata)
    bands = ElementTree.SubElement(specific, "bandCharacterisation")
    for number, center in enumerate(wavelengths, start=1):
        band = ElementTree.SubElement(bands, "bandID", number=str(number))
        values = {"wavelengthCenterOfBand": center, "FWHMOfBand": 7.5, "GainOfBand": gain, "OffsetOfBand": 0}
        for key, value in values.items():
            ElementTree.SubElement(band, key).text = str(value)
    ElementTree.ElementTree(root).write(folder / f"{stem}METADATA.XML", encoding="utf-8", xml_declaration=True)
    return image
